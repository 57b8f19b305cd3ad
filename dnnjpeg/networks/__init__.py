"""Networks: loading, preprocessing, reading pictures and files."""

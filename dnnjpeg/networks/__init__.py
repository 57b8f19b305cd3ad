"""Networks: loading, what they see, what they read."""

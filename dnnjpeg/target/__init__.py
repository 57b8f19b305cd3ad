"""The smallest file that meets a criterion."""

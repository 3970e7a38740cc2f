"""What must hold in every history, worked out apart from the product."""

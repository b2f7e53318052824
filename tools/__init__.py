"""What is run by hand or by make, outside the package."""

"""What people would use in place of lmmpress, side by side on the built-in sample: one module for each peer."""

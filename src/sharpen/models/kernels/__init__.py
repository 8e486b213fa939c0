"""Parts of a model's forward pass in faster or leaner forms."""

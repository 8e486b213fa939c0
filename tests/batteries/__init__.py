"""What sharpen promises to survive, tried in full: ``python tests/batteries``. The test suite runs a short form."""

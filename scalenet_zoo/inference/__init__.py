"""What networks and exported files say about images, and how right it is."""

"""Images and labels: named sets, their cache on disk, and augmentation."""

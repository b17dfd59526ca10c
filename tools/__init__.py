"""What makes files of the repository; no part of the package."""

"""What a run is and where it lies: from a request to jobs, run directories, manifests."""

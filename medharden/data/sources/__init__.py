"""Where cases are listed: folders, manifests, archives."""

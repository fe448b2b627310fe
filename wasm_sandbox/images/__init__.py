"""Images with packages of their own: resolved, kept on this machine, prepared, exported."""

"""Worker processes that run guests, for ``isolation="process"``; imported only when it is asked for."""

"""What every room uses and what knows none of them: files, leases, content hashes, prefetching, progress, Markdown."""

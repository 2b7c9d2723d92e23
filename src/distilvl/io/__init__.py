"""What every package uses: files, leases, content hashes, prefetching, progress, Markdown."""

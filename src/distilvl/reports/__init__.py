"""Reports: one offline page about one or several runs, the same as Markdown and JSON, and the student's model card."""

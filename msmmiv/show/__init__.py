"""What people look at: figures, the report, and the files an analysis leaves behind."""

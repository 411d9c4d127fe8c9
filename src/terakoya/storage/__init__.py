"""Data access: the database, the data folder, and the files through which processes speak. No business rules."""

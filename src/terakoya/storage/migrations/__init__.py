"""Schema changes, oldest first, run when the database is opened.

To add one: write ``versions/rNNNN_what_it_does.py`` with the previous one as ``down_revision``, set ``HEAD`` in
``storage/database.py``. A test compares the migrated schema with ``tables.py``.
"""

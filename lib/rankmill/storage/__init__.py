"""Where bytes are kept: create-if-absent, read, list, on local disks and object stores. No ray here."""

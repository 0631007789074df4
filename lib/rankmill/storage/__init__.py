"""Where bytes are kept, on disks and object stores: put-if-absent, the probe for it, and the lease. No ray here."""

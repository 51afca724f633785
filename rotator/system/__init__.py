"""System calls made well: files, directories, locks, users. Never: knowledge of certificates, sites or nginx."""

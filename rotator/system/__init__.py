"""System calls made well: files, directories, locks, users. Never: a word about certificates, sites or nginx."""

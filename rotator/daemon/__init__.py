"""The daemon around the rotation: one loop, what wakes it, and its life as a service; what it does is said below."""

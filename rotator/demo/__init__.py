"""The demo: rotator's daemon and an nginx on a temporary tree; what can go wrong with a renewal, played and checked."""

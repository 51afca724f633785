"""What is known of nginx: how it is called, what it would take, which processes it has.

It never signals nginx or writes its files (that is `rotator.apply`'s), and knows nothing of sites or generations.
"""

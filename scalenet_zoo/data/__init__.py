"""Data sets: open what a user names, augment the examples, and load them in batches.

"masks:/path" --open_data--> Examples --training_loader--> batches, augmented
                                 |
                                 +------evaluation_loader-> batches, not augmented
"""

"""CLIPSeg features and queries in words.

``config`` holds the settings, ``weights`` finds a model's folder, ``clipseg`` runs it on images
and texts, ``view_features`` is what is kept of a view. ``descriptors`` brings the embeddings of
all views together on the nodes of a scene; ``query`` ranks nodes against a text.
"""

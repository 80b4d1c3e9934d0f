"""What goes wrong with artefacts."""


class ArtefactError(ValueError):
    """A file is damaged or no artefact, or a network is not what one can hold."""

"""What cannot be done with an estate; each text names the cause and the cure, and no secret."""


class EstateError(ValueError):
    """Something is asked of an estate that makes no sense, or cannot be."""


class NoEstateError(EstateError):
    """There is no estate in the folder."""


class OtherEstateError(EstateError):
    """The folder, or what is in it, is of another estate, or of something else altogether."""


class NameTakenError(EstateError):
    """There is a site of this name, and it is another one."""


class BadNameError(EstateError):
    """This is no name."""


class BadAddressError(EstateError):
    """This is no address of a server, or no port."""


class SubnetError(EstateError):
    """This is no subnet, or one that another site has."""


class UnknownError(EstateError):
    """There is no such site, credential or boot image."""


class BrokenError(EstateError):
    """A file of the estate cannot be read or written, or is not what it was."""

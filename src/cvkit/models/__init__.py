"""Models by name, and helpers that change a model that is there.

=================  =================================================================
``create``         any model by name: built in, or torchvision's
``names``          every name
``register``       a name for a builder of your own
``from_config``    the same architecture again, from ``model.cvkit_config``
``freeze``         trains only the head
``unfreeze``       trains everything again
``replace_head``   another number of classes
=================  =================================================================
"""

from cvkit.models import classifiers as _classifiers  # registers the built-in names
from cvkit.models.adapt import freeze, replace_head, unfreeze
from cvkit.models.registry import create, from_config, names, register

__all__ = ["create", "freeze", "from_config", "names", "register", "replace_head", "unfreeze"]

del _classifiers

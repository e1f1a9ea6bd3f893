"""What worker processes are forked from: a process that has loaded the libraries once, and does nothing else.

multiprocessing's fork server imports this module before the libraries, so that what they print on import is not seen:
the terminal belongs to the command. Nothing else imports it.
"""

import gc

from rlhfblender_core.workers.processes import keep_quiet, leave_group

leave_group()
keep_quiet()
# Nothing of what is imported is garbage, and looking for it takes a fifth of the time. Workers collect theirs.
gc.disable()

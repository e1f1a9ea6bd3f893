"""Environments of which everything is known in advance: a package outside the project, as a user might have one.

Importing it registers ``ForTests/Counting-v0``. What shall happen only once, or only in one run, isn't a keyword
argument, which would be part of the request, but an environment variable:

``ENVIRONMENTS_FOR_TESTS_STEPS``   a file that grows by one byte per step, in whichever process it is taken
``ENVIRONMENTS_FOR_TESTS_EVENTS``  ``what@seed:step`` or ``what@seed:step:marker``, separated by spaces; what is
    ``raise`` (an exception), ``kill`` (SIGKILL to the own process, unless the marker file is there) or ``hang``
    (makes the marker file and waits to be killed)
"""

import gymnasium

gymnasium.register("ForTests/Counting-v0", "tests.support.environments_for_tests.counting:Counting")

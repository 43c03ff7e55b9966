"""With which code the command ends, and what each of them says."""

from __future__ import annotations


MET = 0
NOT_MET = 1
BAD_INPUT = 2
FAILED = 3
NO_GAIN = 4
INTERRUPTED = 130

EXPLAINED = """\
exit codes:
  0    a quantized model that meets the criterion was found and written (other commands: done)
  1    no quantized model meets the criterion
  2    something is wrong with what was given; the message says what
  3    the search failed on the way: the server of the storage was lost for too long, a file
       could not be written, every candidate failed in the same way, or an evaluation could not
       be ended; what was found is kept, the same command goes on
  4    the quantized model is no better than FP32 by the objective, such as no faster: one that
       meets the criterion was found and written all the same, or, if the cost table shows it
       before the search, only the FP32 model was evaluated, and nothing written; nor is anything
       if what was tried does not meet the criterion, and nothing else is better than FP32
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP); the best model so far is written, the same command
       goes on
  A code above 128 otherwise is that of a signal that ended the process: 137 if it was killed (out
  of memory, perhaps), 139 if it crashed. The same command goes on.

  Under mpirun or srun that is the code of rank 0; the others end with 0 instead of 1 or 4.
"""

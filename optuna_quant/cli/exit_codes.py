"""The exit codes of the command, and what each of them means."""

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
  3    the search failed before its end: the storage's server was lost for too long, a file could
       not be written, every candidate failed in the same way, or an evaluation could not be
       stopped; what was found is kept, and the same command continues from there
  4    the quantized model is no better than FP32 by the objective, for example no faster. If one
       was found that meets the criterion, it is written all the same. If the cost table shows it
       before the search, only the FP32 model is evaluated, and nothing is written; the same if
       what was tried misses the criterion and nothing else is better than FP32
  130  interrupted (Ctrl-C, SIGTERM, SIGHUP); the best model so far is written, and the same
       command continues from there
  Any other code above 128 means that a signal ended the process: 137 if it was killed (perhaps
  out of memory), 139 if it crashed. The same command continues.

  Under mpirun or srun this is the code of rank 0; the others end with 0 instead of 1 or 4.
"""

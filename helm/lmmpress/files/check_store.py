"""`helm test`: does the bucket keep what the store needs, a write on condition above all?

Runs in the image of lmmpress, with the environment of the pipeline's pods: the doctor's own look at a store.
"""

import os
import sys

from lmmpress.doctor.external_services import Addresses, check_buckets

findings = check_buckets(Addresses(store=os.environ["STORE"]), here=False)
for found in findings:
    if found.status not in ("ok", "warning"):
        sys.exit(f"{found.check}: {found.said}; {found.mend}")
    print(f"{found.check}: {found.said}" + (f"; {found.mend}" if found.mend else ""))

"""Have a new virtual environment see the packages of the one that runs this, behind its own.

python scripts/venv_above.py FOLDER
"""

import sys
import sysconfig
from pathlib import Path

inside = Path(sys.argv[1])
version = f"python{sys.version_info.major}.{sys.version_info.minor}"
own = inside / "Lib" / "site-packages" if sys.platform == "win32" else inside / "lib" / version / "site-packages"
# As a directory of a site, whose own .pth files (an editable installation is one) are followed.
(own / "below.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n", encoding="utf-8")

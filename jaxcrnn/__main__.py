from jaxcrnn.cli import main

raise SystemExit(main())

from jaxcrnn.cli.main import main

raise SystemExit(main())

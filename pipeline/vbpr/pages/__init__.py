"""What people look at: pictures, tables on a terminal, the report, the server and its page, the demo. Uses training,
answers, evaluation and what these stand on; never studies."""

// `raylet query`: one question to a GCS, answered as JSON on stdout. The Python side and scripts look at a cluster with it without joining it:
// they hold no gRPC of their own. Owned by main.
#pragma once

namespace ray::raylet {

// `argv[0]` is "query". Exit codes: 0 answered, 1 no answer (nobody there, or refused), 2 bad flags, 4 the credential was not accepted.
int RunQuery(int argc, char** argv);

}  // namespace ray::raylet

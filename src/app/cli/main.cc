#include "app/cli/cli.h"

int main(int argc, char** argv) { return pmetal::app::cli_main(argc, argv); }

#include "tools/command.h"

#include "apply/migrate.h"
#include "tools/run_command.h"

int pen_command_copy(int argc, char **argv)
{
    return pen_run_command(argc, argv, "copy", pen_copy_alone_run);
}

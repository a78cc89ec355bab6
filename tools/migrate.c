#include "tools/command.h"

#include "apply/migrate.h"
#include "tools/run_command.h"

int pen_command_migrate(int argc, char **argv)
{
    return pen_run_command(argc, argv, "migrate", pen_migrate_run);
}

#include "tools/command.h"

#include "apply/cutover.h"
#include "tools/run_command.h"

int pen_command_cutover(int argc, char **argv)
{
    return pen_run_command(argc, argv, "cutover", pen_cutover_run);
}

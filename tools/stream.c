#include "tools/command.h"

#include "tools/run_command.h"

int pen_command_stream(int argc, char **argv)
{
    return pen_run_command(argc, argv, "stream", pen_stream_run);
}

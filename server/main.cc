#include "server/program.h"

int main(int argc, char** argv) {
  return mobius::run_program(argc, argv);
}

# cmake -DOUTPUT=data.cc -DFOLDER=folder -DFILES="a;b" -P EmbedFiles.cmake: files as bytes in a C++ source, which
# defines `mobius::kEmbeddedFiles` (server/web/web_files.h) in the order of FILES.
set(arrays "")
set(entries "")
set(index 0)
foreach(file IN LISTS FILES)
  file(READ "${FOLDER}/${file}" hex HEX)
  string(REPEAT "[0-9a-f]" 64 line)
  string(REGEX REPLACE "(${line})" "\\1\n" lines "${hex}")
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "'\\\\x\\1'," bytes "${lines}")
  string(APPEND arrays "constexpr char kData${index}[] = {\n${bytes}};\n")
  string(APPEND entries "    {\"${file}\", {kData${index}, sizeof kData${index}}},\n")
  math(EXPR index "${index} + 1")
endforeach()
file(WRITE "${OUTPUT}" "#include \"server/web/web_files.h\"

namespace mobius {
namespace {
${arrays}
constexpr EmbeddedFile kFiles[] = {
${entries}};
}  // namespace

const std::span<const EmbeddedFile> kEmbeddedFiles = kFiles;

}  // namespace mobius
")

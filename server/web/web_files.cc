#include "server/web/web_files.h"

namespace mobius {
namespace {

std::string_view content_type_of(std::string_view name) {
  if (name.ends_with(".html")) return "text/html; charset=utf-8";
  if (name.ends_with(".css")) return "text/css; charset=utf-8";
  return "text/javascript; charset=utf-8";
}

}  // namespace

WebFile find_web_file(std::string_view path) {
  constexpr std::string_view kPrefix = "/web/";
  std::string_view name;
  if (path == "/") name = "index.html";
  if (path.starts_with(kPrefix)) name = path.substr(kPrefix.size());
  for (const EmbeddedFile& file : kEmbeddedFiles) {
    if (file.name == name) return {content_type_of(name), file.data};
  }
  return {};
}

}  // namespace mobius

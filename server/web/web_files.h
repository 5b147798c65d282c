#pragma once

#include <span>
#include <string_view>

namespace mobius {

/// A file of this folder as the build put it into the binary.
struct EmbeddedFile {
  std::string_view name;  ///< "index.html"
  std::string_view data;
};

/// Defined by cmake/EmbedFiles.cmake.
extern const std::span<const EmbeddedFile> kEmbeddedFiles;

/// What a GET of the web page's paths answers.
struct WebFile {
  std::string_view content_type;
  std::string_view data;
};

/// The file at "/" (the page) or "/web/NAME"; no data where there is none.
WebFile find_web_file(std::string_view path);

/// Header lines that every file is sent with: the page loads nothing from elsewhere, is framed by
/// nobody, and is asked for again after an upgrade.
inline constexpr std::string_view kWebHeaders =
    "Content-Security-Policy: default-src 'self'; img-src 'self' data:; frame-ancestors 'none'\r\n"
    "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nCache-Control: "
    "no-cache\r\n";

}  // namespace mobius

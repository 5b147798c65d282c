#include "engine/grammar/schema_compiler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/grammar/form_rules.h"
#include "engine/grammar/number_rules.h"
#include "engine/grammar/pattern.h"
#include "engine/grammar/schema_merge.h"
#include "engine/grammar/schema_rules.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxCount = 10'000;  // of characters and items that a schema can ask for
constexpr int kMaxMultiple = 1000;
constexpr std::size_t kPatternSteps = 1U << 24U;  // of a schema's patterns, together

constexpr auto kTypes = std::to_array<std::string_view>(
    {"null", "boolean", "integer", "number", "string", "array", "object"});

/// A keyword that speaks of one type's values, and that type.
struct TypedKeyword {
  std::string_view name;
  std::string_view type;
};
constexpr auto kTyped = std::to_array<TypedKeyword>({
    {"properties", "object"},
    {"required", "object"},
    {"additionalProperties", "object"},
    {"items", "array"},
    {"prefixItems", "array"},
    {"minItems", "array"},
    {"maxItems", "array"},
    {"uniqueItems", "array"},
    {"minLength", "string"},
    {"maxLength", "string"},
    {"pattern", "string"},
    {"format", "string"},
    {"minimum", "number"},
    {"maximum", "number"},
    {"exclusiveMinimum", "number"},
    {"exclusiveMaximum", "number"},
    {"multipleOf", "number"},
});
constexpr auto kUntyped =
    std::to_array<std::string_view>({"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref"});

bool is_known(std::string_view keyword) {
  return is_annotation(keyword) || std::ranges::count(kUntyped, keyword) > 0 ||
         std::ranges::count(kTyped, keyword, &TypedKeyword::name) > 0;
}

std::string escape_pointer(std::string_view token) {
  std::string out;
  for (const char c : token) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else {
      out += c;
    }
  }
  return out;
}

/// A member of an object, nullptr without.
const Json* member(const Json& schema, std::string_view name) {
  const auto found = schema.find(name);
  return found == schema.end() ? nullptr : &*found;
}

std::string shown(const Json& value) {
  std::string text = value.dump();
  if (text.size() <= 64) return text;
  std::size_t end = 60;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;
  return text.substr(0, end) + "...";
}

class SchemaCompiler {
 public:
  SchemaCompiler(const Json& root, const SchemaLimits& limits)
      : root_(root), limits_(limits), rules_(add_json_rules(a_)) {}

  StatusOr<Automaton> compile(const GrammarForms& forms) {
    const GrammarRule values = reference(forms.values);
    std::optional<GrammarRule> other;
    if (!forms.other.empty()) other = reference(forms.other);
    while (status_.ok() && next_todo_ < todo_.size()) {
      // By value: compiling adds references.
      const auto [pointer, schema, of] = todo_[next_todo_++];
      const std::array<GrammarRule, 1> one = {rule_of(*schema, pointer, 0)};
      if (!status_.ok()) break;
      a_.set_start(of, a_.start(add_choice(a_, one)));
    }
    within_limits("#", 0);
    if (!status_.ok()) return status_;
    if (!a_.finish(add_forms(a_, rules_, forms, values, other))) {
      return Status::invalid("schema", "schema allows no value that is finite");
    }
    if (const GrammarRule again = a_.left_recursive_rule(); again >= 0) {
      const auto named = std::ranges::find(todo_, again, &Reference::rule);
      const std::string where = named == todo_.end() ? "#" : named->pointer;
      return Status::invalid("schema",
                             "schema at " + where + ": refers to itself with nothing in between");
    }
    return std::move(a_);
  }

 private:
  struct Reference {
    std::string pointer;
    const Json* schema = nullptr;
    GrammarRule rule = 0;
  };

  GrammarRule fail(const std::string& pointer, const std::string& what) {
    if (status_.ok()) {
      status_ = Status::invalid("schema", "schema at " + pointer + ": " + what);
    }
    return rules_.null;
  }
  GrammarRule fail_value(const std::string& pointer, const std::string& keyword, const Json& value,
                         const std::string& must) {
    return fail(pointer, "\"" + keyword + "\" is " + shown(value) + ", must be " + must);
  }

  /// What a reference points to, or nullptr with a failure.
  const Json* resolve(const std::string& reference, const std::string& from) {
    const Json* at = &root_;
    if (!reference.starts_with('#')) {
      fail(from, "\"$ref\" is " + shown(reference) + ", must point into this schema (#/...)");
      return nullptr;
    }
    std::string pointer;
    for (std::size_t i = 1; i < reference.size(); ++i) {
      unsigned value = 0;
      if (reference[i] == '%' && i + 2 < reference.size() &&
          std::sscanf(reference.c_str() + i + 1, "%2x", &value) == 1) {
        pointer += static_cast<char>(value);
        i += 2;
      } else {
        pointer += reference[i];
      }
    }
    try {
      const Json::json_pointer path(pointer);
      if (at->contains(path)) return &at->at(path);
    } catch (const nlohmann::json::exception&) {
      // Not a pointer; the same answer as for one to nothing.
    }
    fail(from, "\"$ref\" is " + shown(reference) + ", which is not in this schema");
    return nullptr;
  }

  /// The rule of what a reference points to; it is compiled later, so that references may be
  /// circles and their chains long.
  GrammarRule reference(const std::string& pointer, const std::string& from = "#") {
    if (const auto known = names_.find(pointer); known != names_.end()) return known->second;
    const Json* schema = resolve(pointer, from);
    if (schema == nullptr) return rules_.null;
    todo_.push_back({pointer, schema, a_.add_rule()});
    names_.emplace(pointer, todo_.back().rule);
    return todo_.back().rule;
  }

  bool within_limits(const std::string& pointer, std::size_t depth) {
    if (depth > limits_.depth) {
      fail(pointer, "is nested more than " + std::to_string(limits_.depth) + " deep");
    } else if (++schemas_ > limits_.schemas) {
      fail(pointer, "the schema has more than " + std::to_string(limits_.schemas) +
                        " parts, references and combinations written out");
    } else if (a_.num_states() > limits_.states) {
      fail(pointer, "the schema needs an automaton of more than " + std::to_string(limits_.states) +
                        " states");
    }
    return status_.ok();
  }

  GrammarRule rule_of(const Json& schema, const std::string& pointer, std::size_t depth) {
    if (!status_.ok() || !within_limits(pointer, depth)) return rules_.null;
    if (schema.is_boolean()) {
      return schema.get<bool>() ? rules_.value : add_choice(a_, {});
    }
    if (!check_keywords(schema, pointer)) return rules_.null;
    Json own = Json::object();
    for (const auto& [name, value] : schema.items()) {
      if (!is_annotation(name)) own[name] = value;
    }
    const bool alone = own.size() == 1;
    if (const Json* ref = member(own, "$ref"); ref != nullptr && alone) {
      if (!ref->is_string()) return fail_value(pointer, "$ref", *ref, "a string");
      return reference(ref->get<std::string>(), pointer);
    }
    if (const Json* all = member(own, "allOf");
        all != nullptr && alone && all->is_array() && all->size() == 1) {
      return rule_of(all->front(), pointer + "/allOf/0", depth + 1);
    }
    for (const char* name : {"anyOf", "oneOf"}) {
      if (alone && own.contains(name)) return any_of(own[name], name, pointer, depth);
    }
    for (const char* name : {"$ref", "allOf", "anyOf", "oneOf"}) {
      if (own.contains(name)) return all_of(Json::object(), {{own, {}}}, pointer, depth);
    }
    if (own.empty()) return rules_.value;
    if (own.contains("enum") || own.contains("const")) return literals(own, pointer);
    return typed(own, pointer, depth);
  }

  bool check_keywords(const Json& schema, const std::string& pointer) {
    if (!schema.is_object()) {
      fail(pointer, "is not an object or a boolean");
      return false;
    }
    for (const auto& [name, value] : schema.items()) {
      if (is_known(name)) continue;
      fail(pointer, shown(name) + " is not supported");
      return false;
    }
    return true;
  }

  bool check_list(const Json& schemas, const std::string& name, const std::string& pointer) {
    if (schemas.is_array() && !schemas.empty()) return true;
    fail_value(pointer, name, schemas, "an array of at least one schema");
    return false;
  }

  /// A schema that must hold, and the references on the way to it.
  struct Part {
    Json schema;
    std::vector<std::string> via;
  };

  /// A rule for what `own` (without references and combinations) and all parts ask for.
  GrammarRule all_of(Json own, std::vector<Part> parts, const std::string& pointer,
                     std::size_t depth) {
    std::vector<Part> choices;  // parts of one anyOf or oneOf each
    while (!parts.empty()) {
      Part part = std::move(parts.back());
      parts.pop_back();
      if (!within_limits(pointer, depth)) return rules_.null;
      Json& schema = part.schema;
      if (schema.is_boolean()) {
        if (!schema.get<bool>()) return add_choice(a_, {});
        continue;
      }
      if (!check_keywords(schema, pointer)) return rules_.null;
      if (const auto ref = schema.find("$ref"); ref != schema.end()) {
        if (!ref->is_string()) return fail_value(pointer, "$ref", *ref, "a string");
        const auto name = ref->get<std::string>();
        const Json* target = resolve(name, pointer);
        if (target == nullptr) return rules_.null;
        if (std::ranges::count(part.via, name) > 0) {
          return fail(pointer, "refers to itself with nothing in between");
        }
        Part referenced{*target, part.via};
        referenced.via.push_back(name);
        parts.push_back(std::move(referenced));
        schema.erase("$ref");
      }
      if (const auto all = schema.find("allOf"); all != schema.end()) {
        if (!check_list(*all, "allOf", pointer)) return rules_.null;
        for (const Json& each : *all) parts.push_back({each, part.via});
        schema.erase("allOf");
      }
      for (const char* name : {"anyOf", "oneOf"}) {
        const auto any = schema.find(name);
        if (any == schema.end()) continue;
        if (!check_list(*any, name, pointer)) return rules_.null;
        choices.push_back({*any, part.via});
        schema.erase(name);
      }
      std::string keyword;
      if (!merge_schema(own, schema, keyword)) {
        return fail(pointer, '"' + keyword + "\" cannot be combined with that of another schema");
      }
    }
    if (choices.empty()) return rule_of(own, pointer, depth + 1);
    // Each branch of the last choice beside all the rest.
    const Part last = std::move(choices.back());
    choices.pop_back();
    std::vector<GrammarRule> rules;
    for (std::size_t i = 0; i < last.schema.size() && status_.ok(); ++i) {
      if (!within_limits(pointer, depth + 1)) break;
      std::vector<Part> rest = {{last.schema[i], last.via}};
      for (const Part& choice : choices) {
        rest.push_back({Json{{"anyOf", choice.schema}}, choice.via});
      }
      rules.push_back(own.empty() && rest.size() == 1
                          ? rule_of(last.schema[i], pointer, depth + 1)
                          : all_of(own, std::move(rest), pointer, depth + 1));
    }
    return add_choice(a_, rules);
  }

  GrammarRule any_of(const Json& branches, const std::string& name, const std::string& pointer,
                     std::size_t depth) {
    if (!check_list(branches, name, pointer)) return rules_.null;
    std::vector<GrammarRule> rules;
    for (std::size_t i = 0; i < branches.size() && status_.ok(); ++i) {
      rules.push_back(
          rule_of(branches[i], pointer + "/" + name + "/" + std::to_string(i), depth + 1));
    }
    return add_choice(a_, rules);
  }

  /// The types that a schema names, or that its keywords speak of.
  std::vector<std::string> types_of(const Json& schema, const std::string& pointer) {
    std::vector<std::string> types;
    if (const Json* type = member(schema, "type")) {
      const Json list = type->is_array() ? *type : Json::array({*type});
      for (const Json& each : list) {
        if (!each.is_string() || std::ranges::count(kTypes, each.get<std::string>()) == 0) {
          fail_value(pointer, "type", each,
                     "null, boolean, integer, number, string, array or object");
          return {};
        }
        types.push_back(each.get<std::string>());
      }
      return types;
    }
    for (const TypedKeyword& keyword : kTyped) {
      if (schema.contains(keyword.name)) types.emplace_back(keyword.type);
    }
    std::ranges::sort(types);
    types.erase(std::unique(types.begin(), types.end()), types.end());
    return types;
  }

  static bool has_type(const Json& value, const std::string& type) {
    if (type == "null") return value.is_null();
    if (type == "boolean") return value.is_boolean();
    if (type == "number") return value.is_number();
    if (type == "string") return value.is_string();
    if (type == "array") return value.is_array();
    if (type == "object") return value.is_object();
    return value.is_number_integer() ||
           (value.is_number() && std::trunc(value.get<double>()) == value.get<double>());
  }

  GrammarRule literals(const Json& schema, const std::string& pointer) {
    for (const auto& [name, value] : schema.items()) {
      if (name != "enum" && name != "const" && name != "type") {
        return fail(pointer, "\"" + name + "\" beside \"enum\" or \"const\" is not supported");
      }
    }
    Json values = Json::array();
    if (const Json* list = member(schema, "enum")) {
      if (!list->is_array() || list->empty()) {
        return fail_value(pointer, "enum", *list, "an array of at least one value");
      }
      values = *list;
    }
    if (const Json* only = member(schema, "const")) {
      const bool listed = values.empty() || std::ranges::count(values, *only) > 0;
      values = listed ? Json::array({*only}) : Json::array();
    }
    const std::vector<std::string> types = types_of(schema, pointer);
    std::vector<std::string> texts;
    std::size_t bytes = 0;
    for (const Json& value : values) {
      const bool fits = !schema.contains("type") ||
                        std::ranges::any_of(
                            types, [&](const std::string& type) { return has_type(value, type); });
      if (!fits) continue;
      texts.push_back(value.dump());
      bytes += texts.back().size();
    }
    if (bytes > limits_.states) {
      return fail(pointer, "\"enum\" has " + std::to_string(bytes) +
                               " bytes of values, must have at most " +
                               std::to_string(limits_.states));
    }
    return add_texts(a_, std::move(texts));
  }

  GrammarRule typed(const Json& schema, const std::string& pointer, std::size_t depth) {
    const std::vector<std::string> types = types_of(schema, pointer);
    std::vector<GrammarRule> rules;
    for (const std::string& type : types) {
      if (!status_.ok()) break;
      if (type == "null") rules.push_back(rules_.null);
      if (type == "boolean") rules.push_back(rules_.boolean);
      if (type == "string") rules.push_back(string_rule(schema, pointer));
      if (type == "array") rules.push_back(array_rule(schema, pointer, depth));
      if (type == "object") rules.push_back(object_rule(schema, pointer, depth));
      if (type == "number") rules.push_back(number_rule(schema, pointer, false));
      if (type == "integer" && std::ranges::count(types, "number") == 0) {
        rules.push_back(number_rule(schema, pointer, true));
      }
    }
    return rules.size() == 1 ? rules.front() : add_choice(a_, rules);
  }

  std::optional<std::size_t> count_of(const Json& schema, const std::string& name,
                                      const std::string& pointer) {
    const Json* value = member(schema, name);
    if (value == nullptr) return std::nullopt;
    const double number = value->is_number() ? value->get<double>() : -1;
    if (number >= 0 && number <= static_cast<double>(kMaxCount) && std::trunc(number) == number) {
      return static_cast<std::size_t>(number);
    }
    fail_value(pointer, name, *value, "a whole number from 0 to " + std::to_string(kMaxCount));
    return std::nullopt;
  }

  /// Fails where the least is more than the most.
  void check_counts(std::size_t least, std::optional<std::size_t> most, const std::string& name,
                    const std::string& pointer) {
    if (!most || *most >= least) return;
    fail(pointer, "\"max" + name + "\" is " + std::to_string(*most) + ", must be at least \"min" +
                      name + "\" (" + std::to_string(least) + ")");
  }

  GrammarRule string_rule(const Json& schema, const std::string& pointer) {
    const std::size_t least = count_of(schema, "minLength", pointer).value_or(0);
    const auto most = count_of(schema, "maxLength", pointer);
    check_counts(least, most, "Length", pointer);
    const Json* pattern = member(schema, "pattern");
    const Json* format = member(schema, "format");
    if (pattern != nullptr && format != nullptr) {
      return fail(pointer, "\"pattern\" beside \"format\" is not supported");
    }
    if (!status_.ok()) return rules_.null;
    if (pattern == nullptr && format == nullptr)
      return add_string(a_, rules_, least, most, nullptr);
    std::string expression;
    if (format != nullptr) {
      const char* known =
          format->is_string() ? pattern_of_format(format->get<std::string>()) : nullptr;
      if (known == nullptr) {
        return fail_value(pointer, "format", *format, "one of " + known_formats());
      }
      expression = known;
    } else if (pattern->is_string()) {
      expression = pattern->get<std::string>();
    } else {
      return fail_value(pointer, "pattern", *pattern, "a string");
    }
    const auto [known, is_new] = patterns_.try_emplace(expression);
    const PatternAutomaton& automaton = known->second;
    std::string error;
    if (is_new && !compile_pattern(expression, limits_.pattern_states, pattern_steps_,
                                   known->second, error)) {
      return fail(pointer, "\"pattern\" " + error);
    }
    const std::size_t copies = (most ? *most : least) + 1;
    if (copies * automaton.states.size() > limits_.states) {
      return fail(pointer,
                  "\"pattern\" with \"minLength\" or \"maxLength\" needs an automaton of " +
                      std::to_string(copies * automaton.states.size()) +
                      " states, must be at most " + std::to_string(limits_.states));
    }
    return add_string(a_, rules_, least, most, &automaton);
  }

  GrammarRule array_rule(const Json& schema, const std::string& pointer, std::size_t depth) {
    const std::size_t least = count_of(schema, "minItems", pointer).value_or(0);
    const auto most = count_of(schema, "maxItems", pointer);
    check_counts(least, most, "Items", pointer);
    if (const Json* unique = member(schema, "uniqueItems"); unique != nullptr && *unique != false) {
      return fail_value(pointer, "uniqueItems", *unique, "false");
    }
    std::vector<GrammarRule> first;
    if (const Json* prefix = member(schema, "prefixItems")) {
      if (!prefix->is_array()) return fail_value(pointer, "prefixItems", *prefix, "an array");
      for (std::size_t i = 0; i < prefix->size(); ++i) {
        first.push_back(
            rule_of((*prefix)[i], pointer + "/prefixItems/" + std::to_string(i), depth + 1));
      }
    }
    std::optional<GrammarRule> others;
    if (const Json* items = member(schema, "items")) {
      if (*items != false) others = rule_of(*items, pointer + "/items", depth + 1);
    } else if (first.size() < least || first.empty()) {
      others = rules_.value;
    }
    return add_array(a_, rules_, first, others, least, most);
  }

  GrammarRule object_rule(const Json& schema, const std::string& pointer, std::size_t depth) {
    const Json* additional = member(schema, "additionalProperties");
    const Json* declared = member(schema, "properties");
    std::optional<GrammarRule> others;
    if (additional != nullptr && *additional != false) {
      others = rule_of(*additional, pointer + "/additionalProperties", depth + 1);
    }
    std::vector<PropertyRule> properties;
    if (declared != nullptr) {
      if (!declared->is_object()) return fail_value(pointer, "properties", *declared, "an object");
      for (const auto& [name, property] : declared->items()) {
        const std::string at = pointer + "/properties/" + escape_pointer(name);
        properties.push_back({name, rule_of(property, at, depth + 1), false});
      }
    }
    if (const Json* required = member(schema, "required")) {
      if (!required->is_array()) return fail_value(pointer, "required", *required, "an array");
      for (const Json& name : *required) {
        if (!name.is_string()) return fail_value(pointer, "required", name, "a string");
        const auto text = name.get<std::string>();
        auto property = std::ranges::find(properties, text, &PropertyRule::name);
        if (property == properties.end()) {
          if (additional != nullptr && *additional == false) {
            return fail(pointer, "\"required\" names " + shown(name) +
                                     ", which \"additionalProperties\" forbids");
          }
          properties.push_back({text, others.value_or(rules_.value), true});
        } else {
          property->required = true;
        }
      }
    }
    if (properties.empty() && additional == nullptr) return rules_.object;
    return add_object(a_, rules_, properties, others);
  }

  std::optional<Decimal> bound_of(const Json& schema, const std::string& name,
                                  const std::string& pointer, bool lower) {
    const Json* value = member(schema, name);
    if (value == nullptr) return std::nullopt;
    if (!value->is_number() || !std::isfinite(value->get<double>())) {
      fail_value(pointer, name, *value, "a number");
      return std::nullopt;
    }
    Decimal bound = to_decimal(value->get<double>());
    if (value->is_number_integer()) {  // exactly, also where a double is not
      bound.whole = value->dump();
      bound.negative = bound.whole.starts_with('-');
      if (bound.negative) bound.whole.erase(0, 1);
    }
    if (bound.whole.size() > kMaxIntegerDigits && bound.negative == lower) return std::nullopt;
    if (bound.whole.size() > kMaxIntegerDigits || bound.fraction.size() > kMaxFractionDigits) {
      fail_value(pointer, name, *value,
                 "a number of at most " + std::to_string(kMaxIntegerDigits) +
                     " digits before the point and " + std::to_string(kMaxFractionDigits) +
                     " behind it");
      return std::nullopt;
    }
    return bound;
  }

  /// Sets what "multipleOf" asks for. False if it failed.
  bool read_multiple(const Json& schema, const std::string& pointer, NumberBounds& bounds) {
    const Json* multiple = member(schema, "multipleOf");
    if (multiple == nullptr) return true;
    const double value = multiple->is_number() ? multiple->get<double>() : 0;
    if (value >= 1 && value <= kMaxMultiple && std::trunc(value) == value) {
      bounds.multiple = static_cast<int>(value);
      bounds.fraction_digits = 0;
      return true;
    }
    const Decimal decimal = to_decimal(value);
    const bool power = value > 0 && decimal.whole == "0" && decimal.fraction.back() == '1' &&
                       decimal.fraction.find_first_not_of('0') == decimal.fraction.size() - 1;
    if (power && decimal.fraction.size() <= kMaxFractionDigits) {
      bounds.fraction_digits =
          std::min(bounds.fraction_digits, static_cast<int>(decimal.fraction.size()));
      return true;
    }
    fail_value(pointer, "multipleOf", *multiple,
               "a whole number from 1 to " + std::to_string(kMaxMultiple) + ", or 0.1, 0.01, ...");
    return false;
  }

  GrammarRule number_rule(const Json& schema, const std::string& pointer, bool integer) {
    NumberBounds bounds;
    bounds.fraction_digits = integer ? 0 : kMaxFractionDigits;
    if (!read_multiple(schema, pointer, bounds)) return rules_.null;
    bounds.lower = bound_of(schema, "minimum", pointer, true);
    bounds.upper = bound_of(schema, "maximum", pointer, false);
    // With both kinds of a bound the tighter one counts.
    const auto value_of = [&](const char* name) { return member(schema, name)->get<double>(); };
    if (const auto lower = bound_of(schema, "exclusiveMinimum", pointer, true)) {
      if (!bounds.lower || value_of("exclusiveMinimum") >= value_of("minimum")) {
        bounds.lower = lower;
        bounds.lower_exclusive = true;
      }
    }
    if (const auto upper = bound_of(schema, "exclusiveMaximum", pointer, false)) {
      if (!bounds.upper || value_of("exclusiveMaximum") <= value_of("maximum")) {
        bounds.upper = upper;
        bounds.upper_exclusive = true;
      }
    }
    if (!status_.ok()) return rules_.null;
    const bool plain = !bounds.lower && !bounds.upper && !schema.contains("multipleOf");
    if (plain) return integer ? rules_.integer : rules_.number;
    return add_bounded_number(a_, bounds);
  }

  const Json& root_;
  const SchemaLimits& limits_;
  Automaton a_;
  JsonRules rules_;
  Status status_;
  std::vector<Reference> todo_;  // and done, up to next_todo_
  std::map<std::string, GrammarRule, std::less<>> names_;
  std::size_t next_todo_ = 0;
  std::size_t schemas_ = 0;
  std::map<std::string, PatternAutomaton> patterns_;  // compiled, by expression
  std::size_t pattern_steps_ = kPatternSteps;
};

}  // namespace

StatusOr<Automaton> compile_schema(const Json& schema, const SchemaLimits& limits,
                                   const GrammarForms& forms) {
  return SchemaCompiler(schema, limits).compile(forms);
}

}  // namespace mobius

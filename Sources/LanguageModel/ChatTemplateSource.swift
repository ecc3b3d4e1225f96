/// Recognises chat templates by their Jinja source.
///
/// A template is brought into a form without the accidents of writing (spaces and kinds of quotes
/// in tags, white-space control, adjacent literals), and compared as a whole: a template that does
/// anything else than a known one is not taken for it.
enum ChatTemplateSource {
  /// nil when the template is none of the known ones.
  static func format(of source: String) -> ChatTemplate.Format? {
    guard let form = canonical(source) else { return nil }
    if form == canonical(chatML) { return .chatML(defaultSystemMessage: nil) }
    if form == canonical(llama3) { return .llama3 }
    guard let known = canonical(chatMLWithDefault(system: placeholder)) else { return nil }
    let parts = split(known, at: Array(placeholder.utf8))
    guard form.count >= parts.before.count + parts.after.count,
      form.starts(with: parts.before), form.suffix(parts.after.count).elementsEqual(parts.after)
    else { return nil }
    let message = form[parts.before.count..<form.count - parts.after.count]
    guard !message.contains(quote) else { return nil }
    return .chatML(defaultSystemMessage: String(decoding: message, as: UTF8.self))
  }

  // MARK: - Known templates

  private static let chatML = """
    {% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] \
    + '<|im_end|>' + '\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
    """

  private static func chatMLWithDefault(system: String) -> String {
    """
    {% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
    {{ '<|im_start|>system\\n\(system)<|im_end|>\\n' }}{% endif %}\
    {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\
    {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
    """
  }

  private static let llama3 = """
    {% set loop_messages = messages %}{% for message in loop_messages %}\
    {% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' \
    + message['content'] | trim + '<|eot_id|>' %}\
    {% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}\
    {% endfor %}{% if add_generation_prompt %}\
    {{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
    """

  private static let placeholder = "SYSTEM-MESSAGE"

  private static func split(
    _ bytes: [UInt8], at part: [UInt8]
  ) -> (before: ArraySlice<UInt8>, after: ArraySlice<UInt8>) {
    let start = bytes.indices.first { bytes[$0...].starts(with: part) } ?? bytes.endIndex
    return (bytes[..<start], bytes[start...].dropFirst(part.count))
  }

  // MARK: - Canonical form

  /// Stands for a quotation mark; no template contains this control character.
  private static let quote: UInt8 = 1

  /// nil for a source that is not well-formed.
  private static func canonical(_ source: String) -> [UInt8]? {
    let bytes = Array(source.utf8)
    guard !bytes.contains(quote) else { return nil }
    var result: [UInt8] = []
    var position = 0
    var afterBlock = false
    var stripsNext = false
    while position < bytes.count {
      // Text up to the next tag.
      let tag = nextTag(bytes, from: position)
      var text = bytes[position..<(tag ?? bytes.count)]
      if stripsNext {
        text = text.drop(while: isBlank)
      } else if afterBlock, text.first == UInt8(ascii: "\n") {
        // Chat templates are rendered with trim_blocks and lstrip_blocks.
        text = text.dropFirst()
      }
      guard let tag else {
        result += text
        break
      }
      let isBlock = bytes[tag + 1] == UInt8(ascii: "%")
      var inner = tag + 2
      if inner < bytes.count, bytes[inner] == UInt8(ascii: "-") {
        inner += 1
        while let last = text.last, isBlank(last) { text = text.dropLast() }
      } else if isBlock {
        let line = text.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? text.startIndex
        let beginsLine = line > text.startIndex || line == 0 || afterBlock
        if beginsLine, text[line...].allSatisfy({ $0 == 32 || $0 == 9 }) { text = text[..<line] }
      }
      result += text
      guard
        let end = appendTag(
          bytes, from: inner, closing: isBlock ? UInt8(ascii: "%") : UInt8(ascii: "}"),
          to: &result)
      else { return nil }
      stripsNext = bytes[end - 3] == UInt8(ascii: "-")
      afterBlock = isBlock
      position = end
    }
    return joiningLiterals(result)
  }

  private static func nextTag(_ bytes: [UInt8], from start: Int) -> Int? {
    bytes.indices.dropLast().first {
      $0 >= start && bytes[$0] == UInt8(ascii: "{")
        && (bytes[$0 + 1] == UInt8(ascii: "%") || bytes[$0 + 1] == UInt8(ascii: "{"))
    }
  }

  /// Appends a tag without its insignificant white space; returns the position behind it.
  private static func appendTag(
    _ bytes: [UInt8], from start: Int, closing: UInt8, to result: inout [UInt8]
  ) -> Int? {
    result += [UInt8(ascii: "{"), closing == UInt8(ascii: "%") ? closing : UInt8(ascii: "{")]
    var position = start
    var pendingSpace = false
    while position + 1 < bytes.count {
      let byte = bytes[position]
      if byte == closing, bytes[position + 1] == UInt8(ascii: "}") {
        if result.last == UInt8(ascii: "-") { result.removeLast() }
        result += [closing, UInt8(ascii: "}")]
        return position + 2
      }
      if byte == UInt8(ascii: "'") || byte == UInt8(ascii: "\"") {
        guard let end = appendLiteral(bytes, from: position, to: &result) else { return nil }
        position = end
        pendingSpace = false
        continue
      }
      position += 1
      if isBlank(byte) {
        pendingSpace = true
        continue
      }
      // Only between words does a space mean anything.
      if pendingSpace, isWordByte(byte), let last = result.last, isWordByte(last) {
        result.append(32)
      }
      pendingSpace = false
      result.append(byte)
    }
    return nil
  }

  private static func appendLiteral(
    _ bytes: [UInt8], from start: Int, to result: inout [UInt8]
  ) -> Int? {
    result.append(quote)
    var position = start + 1
    while position < bytes.count {
      switch bytes[position] {
      case bytes[start]:
        result.append(quote)
        return position + 1
      case UInt8(ascii: "\\") where position + 1 < bytes.count:
        position += 1
        switch bytes[position] {
        case UInt8(ascii: "n"): result.append(10)
        case UInt8(ascii: "t"): result.append(9)
        case UInt8(ascii: "r"): result.append(13)
        case let other: result.append(other)
        }
      case let byte: result.append(byte)
      }
      position += 1
    }
    return nil
  }

  /// 'a' + 'b' as 'ab', x['y'] as x.y.
  private static func joiningLiterals(_ bytes: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    var position = 0
    while position < bytes.count {
      let rest = bytes[position...]
      if rest.starts(with: [quote, UInt8(ascii: "+"), quote]) {
        position += 3
      } else if rest.starts(with: [UInt8(ascii: "["), quote]),
        let end = rest.dropFirst(2).firstIndex(of: quote), end + 1 < bytes.count,
        bytes[end + 1] == UInt8(ascii: "]")
      {
        result.append(UInt8(ascii: "."))
        result += bytes[position + 2..<end]
        position = end + 2
      } else {
        result.append(bytes[position])
        position += 1
      }
    }
    return result
  }

  private static func isBlank(_ byte: UInt8) -> Bool {
    byte == 32 || (9...13).contains(byte)
  }

  private static func isWordByte(_ byte: UInt8) -> Bool {
    (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
      || byte == UInt8(ascii: "_") || byte >= 0x80
  }
}

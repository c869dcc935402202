def polite(response, gold, row):
    return "please" in response.lower()
